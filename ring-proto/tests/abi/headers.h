/* SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0 */

/* What every row of the table may name. An i386 compiler without its C library has no <string.h>. */
#include <stddef.h>
#include <stdint.h>
void *memcpy(void *, const void *, __SIZE_TYPE__);
void *memset(void *, int, __SIZE_TYPE__);

#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include <xen/xen-compat.h>
#include <xen/xen.h>
/* Two error numbers are the hypervisor's own. */
#define __XEN__
#include <xen/errno.h>
#undef __XEN__
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/io/blkif.h>
#include <xen/io/console.h>
#include <xen/io/netif.h>
#include <xen/io/protocols.h>
#include <xen/io/ring.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>
#ifdef __x86_64__
#include <xen/io/libxenvchan.h>
#endif

DEFINE_XEN_FLEX_RING_AND_INTF(flex);

/* Bytes of a field. */
#define field(type, name) sizeof(((type *)0)->name)
