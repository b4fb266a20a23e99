/* SPDX-License-Identifier: GPL-2.0 */
/* Inline functions and macros of the kernel's headers, as functions that Rust can call. */
#ifndef CAUSEWAY_SHIM_H
#define CAUSEWAY_SHIM_H

#include <linux/types.h>

bool causeway_xen_domain(void);

#endif
