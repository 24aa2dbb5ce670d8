"""What every module may use: errors, the registry of formats, threads, files written whole."""
