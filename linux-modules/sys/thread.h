/* SPDX-License-Identifier: GPL-2.0 */
/* How a kernel thread sleeps and is woken. */
#ifndef CAUSEWAY_THREAD_H
#define CAUSEWAY_THREAD_H

#include <linux/types.h>

struct task_struct;

void causeway_park(const u32 *woken, u64 until);
void causeway_await_stop(void);
void causeway_get_task(struct task_struct *task);
void causeway_put_task(struct task_struct *task);

#endif
