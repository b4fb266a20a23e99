// SPDX-License-Identifier: GPL-2.0

#include "bdev.h"
#include <linux/cdrom.h>

void causeway_bdev_limits(struct block_device *bdev, struct causeway_bdev_limits *limits)
{
	*limits = (struct causeway_bdev_limits) {
		.logical_block_size = bdev_logical_block_size(bdev),
		.physical_block_size = bdev_physical_block_size(bdev),
		.max_discard_sectors = bdev_max_discard_sectors(bdev),
		.discard_granularity = bdev_discard_granularity(bdev),
		.discard_alignment = bdev_discard_alignment(bdev),
		.max_secure_erase_sectors = bdev_max_secure_erase_sectors(bdev),
		.write_cache = bdev_write_cache(bdev),
		.removable = bdev->bd_disk->flags & GENHD_FL_REMOVABLE,
		.cdrom = disk_to_cdi(bdev->bd_disk),
	};
}

u64 causeway_bdev_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}
