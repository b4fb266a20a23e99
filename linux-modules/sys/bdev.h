/* SPDX-License-Identifier: GPL-2.0 */
/* Inline functions of the block layer for those who use a block device. */
#ifndef CAUSEWAY_BDEV_H
#define CAUSEWAY_BDEV_H

#include <linux/blkdev.h>

/* Macros with casts, which bindgen leaves out. */
enum causeway_blk {
	CAUSEWAY_BLK_OPEN_READ = (__force unsigned int)BLK_OPEN_READ,
	CAUSEWAY_BLK_OPEN_WRITE = (__force unsigned int)BLK_OPEN_WRITE,
	CAUSEWAY_BLK_STS_OK = (__force unsigned int)BLK_STS_OK,
	CAUSEWAY_BLK_STS_NOTSUPP = (__force unsigned int)BLK_STS_NOTSUPP,
};

/* What a user of a block device has to know of it, read at once. */
struct causeway_bdev_limits {
	u32 logical_block_size;
	u32 physical_block_size;
	u32 max_discard_sectors;
	u32 discard_granularity;
	u32 discard_alignment;
	u32 max_secure_erase_sectors;
	bool write_cache;
	bool removable;
	bool cdrom;
};

void causeway_bdev_limits(struct block_device *bdev, struct causeway_bdev_limits *limits);
u64 causeway_bdev_sectors(struct block_device *bdev);

#endif
