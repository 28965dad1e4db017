"""What is read off the runs of each study: one file per study, named like its grid."""
