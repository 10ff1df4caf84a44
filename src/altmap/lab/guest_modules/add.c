// SPDX-License-Identifier: GPL-2.0
/*
 * A driver that adds and removes the memory that it is told to, for kernels without such a file.
 *
 * One command for each write to /dev/altmap-add, its error as the result of the write. Numbers are as
 * in C; START and SIZE are bytes, FLAGS those of include/linux/memory_hotplug.h (mhp_t).
 *
 *	add START SIZE NODE FLAGS		as "System RAM"
 *	managed START SIZE NODE FLAGS NAME	as a driver's own, with the name that it gives
 *	remove START SIZE			its blocks are offline
 *	offline-remove START SIZE
 *	back START SIZE				of all memory that goes online, only such pages are freed
 *	static NODE PAGES, dynamic NODE PAGES	a memory group, whose number is the parameter "group"
 *
 * All of this is exported to modules by 6.1, 6.12 and 7.3.
 */
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/page-flags.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "altmap.h"

#define MOST_COMMAND_BYTES 256
#define MOST_NAME_BYTES 64

/* The number of the latest memory group. */
static int group = -1;
module_param(group, int, 0444);

struct backed {
	struct list_head list;
	unsigned long start, end;
};

static LIST_HEAD(backed_ranges);

static bool is_backed(unsigned long pfn)
{
	struct backed *range;

	list_for_each_entry(range, &backed_ranges, list)
		if (range->start <= pfn && pfn < range->end)
			return true;
	return false;
}

/* Memory that is not backed stays out of the buddy: PageOffline, as other drivers mark it. */
static void online_backed(struct page *page, unsigned int order)
{
	unsigned long at, pfn = page_to_pfn(page);

	for (at = 0; at < 1UL << order; at++) {
		if (is_backed(pfn + at))
			generic_online_page(page + at, 0);
		else if (!PageOffline(page + at))
			__SetPageOffline(page + at);
	}
}

static int back(u64 start, u64 size)
{
	struct backed *range = kmalloc(sizeof(*range), GFP_KERNEL);
	int error = 0;

	if (!range)
		return -ENOMEM;
	range->start = PFN_DOWN(start);
	range->end = PFN_UP(start + size);
	if (list_empty(&backed_ranges))
		error = set_online_page_callback(online_backed);
	if (error)
		kfree(range);
	else
		list_add_tail(&range->list, &backed_ranges);
	return error;
}

static int add_managed(u64 start, u64 size, int node, int flags, const char *name)
{
	/* The kernel keeps the pointer for as long as the memory is there. */
	const char *kept = kstrdup(name, GFP_KERNEL);

	if (!kept)
		return -ENOMEM;
	return add_memory_driver_managed(node, start, size, kept, (__force mhp_t)flags);
}

static int perform(const char *text)
{
	char verb[16], name[MOST_NAME_BYTES];
	long long start, size;
	int node, flags, nr;

	nr = sscanf(text, "%15s %lli %lli %i %i %63[^\n]", verb, &start, &size, &node, &flags, name);
	if (nr == 5 && !strcmp(verb, "add"))
		return add_memory(node, start, size, (__force mhp_t)flags);
	if (nr == 6 && !strcmp(verb, "managed"))
		return add_managed(start, size, node, flags, name);
	if (nr == 3 && !strcmp(verb, "remove"))
		return remove_memory(start, size);
	if (nr == 3 && !strcmp(verb, "offline-remove"))
		return offline_and_remove_memory(start, size);
	if (nr == 3 && !strcmp(verb, "back"))
		return back(start, size);
	if (nr != 3)
		return -EINVAL;
	if (!strcmp(verb, "static"))
		nr = memory_group_register_static(start, size);
	else if (!strcmp(verb, "dynamic"))
		nr = memory_group_register_dynamic(start, size);
	else
		return -EINVAL;
	if (nr < 0)
		return nr;
	group = nr;
	return 0;
}

static ssize_t command_write(struct file *file, const char __user *buffer, size_t size,
			     loff_t *offset)
{
	char *text;
	int error;

	if (size > MOST_COMMAND_BYTES)
		return -EMSGSIZE;
	text = memdup_user_nul(buffer, size);
	if (IS_ERR(text))
		return PTR_ERR(text);
	error = perform(text);
	kfree(text);
	return error ? error : size;
}

static const struct file_operations command_operations = {
	.owner = THIS_MODULE,
	.write = command_write,
};

static struct miscdevice command_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "altmap-add",
	.fops = &command_operations,
};

static int __init add_init(void)
{
	return misc_register(&command_device);
}
module_init(add_init);

MODULE_DESCRIPTION("altmap: adds and removes the memory that it is told to");
MODULE_LICENSE("GPL");
