/* SPDX-License-Identifier: GPL-2.0 */
/* Inline functions and macros of the kernel's headers, as functions that Rust can call. */
#ifndef CAUSEWAY_SHIM_H
#define CAUSEWAY_SHIM_H

#include <linux/types.h>

struct attribute;
struct attribute_group;
struct device;
struct device_attribute;
struct gnttab_copy;
struct gnttab_map_grant_ref;
struct gnttab_unmap_grant_ref;
struct page;
struct xenbus_device;

bool causeway_xen_domain(void);
bool causeway_xen_hvm_domain(void);

bool causeway_device_trylock(struct device *dev);
void causeway_device_unlock(struct device *dev);
bool causeway_device_is_registered(struct device *dev);
typedef ssize_t (*causeway_show)(struct device *dev, struct device_attribute *attr, char *buf);
void causeway_attribute_init(struct device_attribute *attr, const char *name, causeway_show show);
void causeway_attribute_group_init(struct attribute_group *group, const char *name, struct attribute **files);

void causeway_notify_port(u32 port);
u32 causeway_port_of_irq(unsigned int irq);

void *causeway_page_address(struct page *page);
int causeway_page_count(struct page *page);
unsigned long causeway_page_to_gfn(struct page *page);
void causeway_set_map_op(struct gnttab_map_grant_ref *op, struct page *page, u32 flags, u32 ref, u16 domid);
void causeway_set_unmap_op(struct gnttab_unmap_grant_ref *op, struct page *page, u32 flags, u32 handle);
int causeway_setup_ring(struct xenbus_device *dev, void **base, unsigned int pages, u32 *refs);
int causeway_grant_copy(struct gnttab_copy *ops, unsigned int count);

#endif
