// SPDX-License-Identifier: GPL-2.0
/*
 * Files of text in debugfs. The kernel crate's own do not say which module they belong to, so that one which somebody
 * keeps open would outlive the module.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include "debugfs.h"

static int view_open(struct inode *inode, struct file *file)
{
	struct causeway_view *view = inode->i_private;

	return single_open(file, view->show, view);
}

static const struct file_operations view_operations = {
	.owner = THIS_MODULE,
	.open = view_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = single_release,
};

struct dentry *causeway_debugfs_folder(const char *name)
{
	return debugfs_create_dir(name, NULL);
}

struct dentry *causeway_debugfs_file(const char *name, struct dentry *folder, struct causeway_view *view)
{
	return debugfs_create_file(name, 0400, folder, view, &view_operations);
}

void causeway_debugfs_remove(struct dentry *entry)
{
	debugfs_remove(entry);
}
