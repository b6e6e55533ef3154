"""Sources of samples: records and files of every supported format, read as blocks of samples."""
