// SPDX-License-Identifier: GPL-2.0

#include "thread.h"
#include <linux/cpumask.h>
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/workqueue.h>

/*
 * Sleeps until somebody sets *woken and wakes this thread, or until a time (ktime_get, nanoseconds; U64_MAX for none).
 * May also return for no reason.
 */
void causeway_park(const u32 *woken, u64 until)
{
	set_current_state(TASK_IDLE);
	if (!READ_ONCE(*woken)) {
		if (until == U64_MAX) {
			schedule();
		} else {
			ktime_t time = until;

			schedule_hrtimeout_range(&time, 50 * NSEC_PER_USEC, HRTIMER_MODE_ABS);
		}
	}
	__set_current_state(TASK_RUNNING);
}

/* Sleeps until kthread_stop() is called for this thread. */
void causeway_await_stop(void)
{
	for (;;) {
		set_current_state(TASK_IDLE);
		if (kthread_should_stop())
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
}

/* Whether it is this task that runs, and not an interrupt of it. */
bool causeway_runs(const struct task_struct *task)
{
	return task == current && in_task();
}

u32 causeway_online_cpus(void)
{
	return num_online_cpus();
}

u64 causeway_ticks(void)
{
	return get_jiffies_64();
}

void causeway_cond_resched(void)
{
	cond_resched();
}

struct workqueue_struct *causeway_alloc_workqueue(const char *name)
{
	/* A disk may hold the swap space that memory for another thread would come from. */
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
}

void causeway_get_task(struct task_struct *task)
{
	get_task_struct(task);
}

void causeway_put_task(struct task_struct *task)
{
	put_task_struct(task);
}
