//! Compression of layers and archives.
