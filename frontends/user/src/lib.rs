//! The block frontend in user space: a disk, a load generator, an NBD server.
