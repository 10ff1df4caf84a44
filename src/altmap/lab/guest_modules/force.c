// SPDX-License-Identifier: GPL-2.0
/*
 * The self-hosting flag on every add of memory, whatever driver asks.
 *
 * A probe at the entry of mm/memory_hotplug.c: add_memory_resource sets MHP_MEMMAP_ON_MEMORY in its
 * third argument (6.1, 6.12). On 7.3 that function is a wrapper, inlined, of __add_memory_resource,
 * whose third argument is the same.
 */
#include <linux/kprobes.h>
#include <linux/memory_hotplug.h>
#include <linux/module.h>

#include "altmap.h"

/* How many adds were given the flag. */
static int nr_forced;
module_param(nr_forced, int, 0444);

static int before_add(struct kprobe *probe, struct pt_regs *regs)
{
	regs->dx |= (__force unsigned long)MHP_MEMMAP_ON_MEMORY;
	nr_forced++;
	return 0;
}

static struct kprobe inner = { .symbol_name = "__add_memory_resource", .pre_handler = before_add };
static struct kprobe outer = { .symbol_name = "add_memory_resource", .pre_handler = before_add };

static int __init force_init(void)
{
	return register_kprobe(&inner) ? register_kprobe(&outer) : 0;
}
module_init(force_init);

MODULE_DESCRIPTION("altmap: MHP_MEMMAP_ON_MEMORY on every add of memory");
MODULE_LICENSE("GPL");
