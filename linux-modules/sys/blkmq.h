/* SPDX-License-Identifier: GPL-2.0 */
/* Inline functions of the block layer for those who are a disk. */
#ifndef CAUSEWAY_BLKMQ_H
#define CAUSEWAY_BLKMQ_H

#include <linux/blk-mq.h>
#include <linux/hdreg.h>

/* Macros with casts, which bindgen leaves out. */
enum {
	CAUSEWAY_STS_NOTSUPP = (__force unsigned int)BLK_STS_NOTSUPP,
	CAUSEWAY_STS_RESOURCE = (__force unsigned int)BLK_STS_RESOURCE,
	CAUSEWAY_STS_IOERR = (__force unsigned int)BLK_STS_IOERR,
	CAUSEWAY_FEAT_WRITE_CACHE = (__force unsigned int)BLK_FEAT_WRITE_CACHE,
	CAUSEWAY_FEAT_FUA = (__force unsigned int)BLK_FEAT_FUA,
};

bool causeway_add_to_batch(struct request *rq, struct io_comp_batch *batch, bool failed);
/* queue_limits_start_update() that does not wait. */
bool causeway_queue_limits_try_update(struct request_queue *queue, struct queue_limits *limits);
void causeway_disable_discard(struct request_queue *queue);
void causeway_set_geometry(struct hd_geometry *geometry, u8 heads, u8 sectors, u16 cylinders);
void causeway_copy(void *into, const void *from, size_t len);

#endif
