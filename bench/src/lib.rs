//! Micro-benchmarks: the ring against Xen's ring.h, the disk against raw io_uring.
