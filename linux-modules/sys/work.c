// SPDX-License-Identifier: GPL-2.0

#include <linux/mm.h>
#include <linux/sched/mm.h>

#include "work.h"

void causeway_init_work(struct delayed_work *work, work_func_t run)
{
	INIT_DELAYED_WORK(work, run);
}

void causeway_queue_work(struct workqueue_struct *queue, struct delayed_work *work,
			 u32 milliseconds)
{
	mod_delayed_work(queue ?: system_long_wq, work, msecs_to_jiffies(milliseconds));
}

unsigned int causeway_noio_save(void)
{
	return memalloc_noio_save();
}

void causeway_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

struct page *causeway_page_of_address(const void *address)
{
	return virt_to_page(address);
}
