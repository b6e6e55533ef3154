"""Where samples come from: records and files, all read as blocks of samples."""
