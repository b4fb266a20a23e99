// SPDX-License-Identifier: GPL-2.0

#include "bindings.h"

bool causeway_xen_domain(void)
{
	return xen_domain();
}

bool causeway_xen_hvm_domain(void)
{
	return xen_hvm_domain();
}

bool causeway_device_trylock(struct device *dev)
{
	return device_trylock(dev);
}

void causeway_device_unlock(struct device *dev)
{
	device_unlock(dev);
}

bool causeway_device_is_registered(struct device *dev)
{
	return device_is_registered(dev);
}

/* Lockdep wants a static key; all attributes made at run time share this one. */
void causeway_attribute_init(struct device_attribute *attr, const char *name, causeway_show show)
{
	sysfs_attr_init(&attr->attr);
	attr->attr.name = name;
	attr->attr.mode = 0444;
	attr->show = show;
}

void causeway_attribute_group_init(struct attribute_group *group, const char *name, struct attribute **files)
{
	group->name = name;
	group->attrs = files;
}

void causeway_notify_port(u32 port)
{
	notify_remote_via_evtchn(port);
}

/* The kernel tells which irq a port is bound to, but not the reverse. Ports are given out from the lowest. */
u32 causeway_port_of_irq(unsigned int irq)
{
	u32 port;

	for (port = 1; port < xen_evtchn_nr_channels(); port++)
		if (irq_from_evtchn(port) == irq)
			return port;
	return 0;
}

void *causeway_page_address(struct page *page)
{
	return page_address(page);
}

int causeway_page_count(struct page *page)
{
	return page_count(page);
}

unsigned long causeway_page_to_gfn(struct page *page)
{
	return xen_page_to_gfn(page);
}

void causeway_set_map_op(struct gnttab_map_grant_ref *op, struct page *page, u32 flags, u32 ref, u16 domid)
{
	gnttab_set_map_op(op, (unsigned long)pfn_to_kaddr(page_to_pfn(page)), flags, ref, domid);
	op->handle = INVALID_GRANT_HANDLE;
	op->dev_bus_addr = 0;
	op->status = 1; /* no status of Xen's: the operation was not done */
}

void causeway_set_unmap_op(struct gnttab_unmap_grant_ref *op, struct page *page, u32 flags, u32 handle)
{
	gnttab_set_unmap_op(op, (unsigned long)pfn_to_kaddr(page_to_pfn(page)), flags, handle);
	op->status = 1; /* no status of Xen's: the operation was not done */
}

/* A frontend may be what the swap lies on: no I/O for the sake of its ring. */
int causeway_setup_ring(struct xenbus_device *dev, void **base, unsigned int pages, u32 *refs)
{
	return xenbus_setup_ring(dev, GFP_NOIO | __GFP_HIGH, base, pages, refs);
}

int causeway_grant_copy(struct gnttab_copy *ops, unsigned int count)
{
	return HYPERVISOR_grant_table_op(GNTTABOP_copy, ops, count);
}
