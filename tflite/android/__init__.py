"""What an app needs beside the file."""
