/* SPDX-License-Identifier: GPL-2.0 */
/* The headers whose items `bindgen_parameters` names, and the inline functions and macros that shim.c makes callable. */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/device.h>
#include <linux/moduleparam.h>
#include <linux/sysfs.h>
#include <xen/events.h>
#include <xen/grant_table.h>
#include <xen/interface/grant_table.h>
#include <xen/page.h>
#include <xen/platform_pci.h>
#include <xen/xen.h>
#include <xen/xenbus.h>

#include "bdev.h"
#include "blkmq.h"
#include "debugfs.h"
#include "shim.h"
#include "thread.h"
#include "work.h"
