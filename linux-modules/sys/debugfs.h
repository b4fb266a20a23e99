/* SPDX-License-Identifier: GPL-2.0 */
/* Files of text in debugfs. */
#ifndef CAUSEWAY_DEBUGFS_H
#define CAUSEWAY_DEBUGFS_H

struct dentry;
struct seq_file;

/* What begins the data of a file: writes the text. The file's `private` is a pointer to this. */
struct causeway_view {
	int (*show)(struct seq_file *file, void *unused);
};

struct dentry *causeway_debugfs_folder(const char *name);
struct dentry *causeway_debugfs_file(const char *name, struct dentry *folder, struct causeway_view *view);
void causeway_debugfs_remove(struct dentry *entry);

#endif
