/* SPDX-License-Identifier: GPL-2.0 */
/* How a kernel thread sleeps and is woken. */
#ifndef CAUSEWAY_THREAD_H
#define CAUSEWAY_THREAD_H

#include <linux/types.h>

struct task_struct;
struct workqueue_struct;

void causeway_park(const u32 *woken, u64 until);
void causeway_await_stop(void);
u64 causeway_ticks(void);
bool causeway_runs(const struct task_struct *task);
u32 causeway_online_cpus(void);
void causeway_cond_resched(void);
struct workqueue_struct *causeway_alloc_workqueue(const char *name);
void causeway_get_task(struct task_struct *task);
void causeway_put_task(struct task_struct *task);

#endif
