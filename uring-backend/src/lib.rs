//! The user-space block backend on io_uring.
