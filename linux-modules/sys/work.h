/* SPDX-License-Identifier: GPL-2.0 */
/* Delayed work, allocating without I/O, and pages by their address. */
#ifndef CAUSEWAY_WORK_H
#define CAUSEWAY_WORK_H

#include <linux/workqueue.h>

void causeway_init_work(struct delayed_work *work, work_func_t run);
void causeway_queue_work(struct workqueue_struct *queue, struct delayed_work *work,
			 u32 milliseconds);
unsigned int causeway_noio_save(void);
void causeway_noio_restore(unsigned int flags);

struct page *causeway_page_of_address(const void *address);

#endif
