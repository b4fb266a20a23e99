//! The hypervisor as a Linux process: a domain is a process, its memory a memfd, an event an eventfd.
