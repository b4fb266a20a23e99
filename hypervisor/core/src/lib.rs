//! A hypervisor as pure logic: domains, grant tables, event channels, hypercalls.
