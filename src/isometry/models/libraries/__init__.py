"""Teachers of other libraries, one library a file; the file's name is what a teacher's name begins with."""
