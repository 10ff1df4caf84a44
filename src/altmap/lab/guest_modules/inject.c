// SPDX-License-Identifier: GPL-2.0
/*
 * Failures that Debian's kernels cannot be asked for: CONFIG_FAULT_INJECTION is not set.
 *
 * One command for each write to /dev/altmap-inject. Numbers are as in C.
 *
 *	veto ACTION ERRNO TIMES [FIRST END]...	a listener of the memory notifier chain refuses
 *		going_offline or going_online, for ranges of pfns or for all; TIMES 0: always
 *	block-devices FAILS			the next add cannot create its memory blocks
 *
 * As lib/notifier-error-inject.c, but it counts and chooses. The failure of an add is a probe at the
 * entry of drivers/base/memory.c: create_memory_block_devices that returns at once (6.1, 6.12, 7.3).
 */
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/memory.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "altmap.h"

#define MOST_COMMAND_BYTES 4096
#define MOST_RANGES 64

struct veto {
	int error, times, nr_ranges;
	unsigned long first[MOST_RANGES], end[MOST_RANGES];
};

static struct veto going_offline, going_online;

/* The numbers of actions are bits or count up, as the release has it. */
static struct veto *veto_of(unsigned long action)
{
	if (action == MEM_GOING_OFFLINE)
		return &going_offline;
	return action == MEM_GOING_ONLINE ? &going_online : NULL;
}

static bool concerns(const struct veto *veto, unsigned long pfn)
{
	int n;

	for (n = 0; n < veto->nr_ranges; n++)
		if (veto->first[n] <= pfn && pfn < veto->end[n])
			return true;
	return !veto->nr_ranges;
}

static int refuse(struct notifier_block *block, unsigned long action, void *data)
{
	struct memory_notify *notify = data;
	struct veto *veto = veto_of(action);
	int error;

	if (!veto || !veto->error || !concerns(veto, notify->start_pfn))
		return NOTIFY_OK;
	error = veto->error;
	if (veto->times && !--veto->times)
		veto->error = 0;
	return notifier_from_errno(-error);
}

static struct notifier_block listener = { .notifier_call = refuse };

static int set_veto(char *text)
{
	unsigned long error, times, first, end;
	struct veto *veto;
	char *words[3];
	int n;

	for (n = 0; n < 3; n++)
		words[n] = strsep(&text, " ");
	if (!words[2] || kstrtoul(words[1], 0, &error) || kstrtoul(words[2], 0, &times))
		return -EINVAL;
	veto = strcmp(words[0], "going_offline") ? &going_online : &going_offline;
	veto->error = 0;
	veto->nr_ranges = 0;
	while (text) {
		char *low = strsep(&text, " "), *high = strsep(&text, " ");

		if (!high || kstrtoul(low, 0, &first) || kstrtoul(high, 0, &end))
			return -EINVAL;
		if (veto->nr_ranges == MOST_RANGES)
			return -E2BIG;
		veto->first[veto->nr_ranges] = first;
		veto->end[veto->nr_ranges++] = end;
	}
	veto->times = times;
	veto->error = error;
	return 0;
}

static bool fail_block_devices;

/* Where a probed function goes on that is to return at once: its caller's address is on the stack. */
asm(".text\n"
    "altmap_return: ret\n"
    "int3\n"
    ".previous\n");
void altmap_return(void);

static int at_block_devices(struct kprobe *probe, struct pt_regs *regs)
{
	if (!fail_block_devices)
		return 0;
	fail_block_devices = false;
	regs->ax = -ENOMEM;
	regs->ip = (unsigned long)altmap_return;
	return 1;
}

/* With it, a probe that uses ftrace may change where the function goes on. */
static void after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

static struct kprobe block_devices = {
	.symbol_name = "create_memory_block_devices",
	.pre_handler = at_block_devices,
	.post_handler = after,
};

static ssize_t command_write(struct file *file, const char __user *buffer, size_t size,
			     loff_t *offset)
{
	char *text;
	int error = 0;

	if (size > MOST_COMMAND_BYTES)
		return -EMSGSIZE;
	text = memdup_user_nul(buffer, size);
	if (IS_ERR(text))
		return PTR_ERR(text);
	if (!strncmp(text, "veto ", 5))
		error = set_veto(strim(text + 5));
	else if (!strncmp(text, "block-devices ", 14))
		error = kstrtobool(strim(text + 14), &fail_block_devices);
	else
		error = -EINVAL;
	kfree(text);
	return error ? error : size;
}

static const struct file_operations command_operations = {
	.owner = THIS_MODULE,
	.write = command_write,
};

static struct miscdevice command_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "altmap-inject",
	.fops = &command_operations,
};

static int __init inject_init(void)
{
	int error = register_kprobe(&block_devices);

	if (!error)
		error = register_memory_notifier(&listener);
	return error ? error : misc_register(&command_device);
}
module_init(inject_init);

MODULE_DESCRIPTION("altmap: vetoes that end, and adds that fail");
MODULE_LICENSE("GPL");
