// SPDX-License-Identifier: GPL-2.0

#include "blkmq.h"

bool causeway_add_to_batch(struct request *rq, struct io_comp_batch *batch, bool failed)
{
	return blk_mq_add_to_batch(rq, batch, failed, blk_mq_end_request_batch);
}

bool causeway_queue_limits_try_update(struct request_queue *queue, struct queue_limits *limits)
{
	if (!mutex_trylock(&queue->limits_lock))
		return false;
	*limits = queue->limits;
	return true;
}

void causeway_disable_discard(struct request_queue *queue)
{
	blk_queue_disable_discard(queue);
	blk_queue_disable_secure_erase(queue);
}

void causeway_set_geometry(struct hd_geometry *geometry, u8 heads, u8 sectors, u16 cylinders)
{
	geometry->heads = heads;
	geometry->sectors = sectors;
	geometry->cylinders = cylinders;
}

void causeway_copy(void *into, const void *from, size_t len)
{
	memcpy(into, from, len);
}
