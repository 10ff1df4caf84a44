/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The design of November 2018 on Linux 6.12: the memmap of added memory lies in the first pages of
 * the range that one add brings, whichever driver asks. Included in mm/memory_hotplug.c.
 *
 * One altmap serves the whole range, so the memmap of a later block lies in an earlier one. A small
 * altmap for each block says only how many of its first pages are memmap: onlining and offlining of
 * such pages is that of the kernel. A range leaves as it came, as a whole.
 */
#include <linux/list.h>
#include <linux/slab.h>

/* Whether an add takes its memmap from its own range; a range keeps what held when it was added. */
static bool memmap_from_range;
module_param(memmap_from_range, bool, 0644);

enum { MEMMAP_HIDDEN, MEMMAP_PRESENT, MEMMAP_IN_TOTAL };

/* Where memmap pages of online blocks count: nowhere, as present pages, in MemTotal as well. */
static unsigned int memmap_counted = MEMMAP_HIDDEN;
module_param(memmap_counted, uint, 0644);

struct added_range {
	struct list_head list;
	struct vmem_altmap *altmap;
	u64 start, size;
	unsigned int counted;
};

/* Protected by mem_hotplug_lock. */
static LIST_HEAD(added_ranges);

/* Every bit but those that say what kind of mapping it is. */
#define VMEMMAP_MARK ((void *)~(unsigned long)PAGE_MAPPING_FLAGS)

static unsigned long nr_memmap_pages(const struct added_range *range)
{
	return range->altmap->alloc + range->altmap->align;
}

/* The struct pages of the memmap pages are written during the add. */
static noinline void mark_vmemmap_pages(const struct added_range *range)
{
	unsigned long pfn = PHYS_PFN(range->start), end = pfn + nr_memmap_pages(range);

	for (; pfn < end; pfn++) {
		struct page *page = pfn_to_page(pfn);

		mm_zero_struct_page(page);
		init_page_count(page);
		__SetPageReserved(page);
		page->mapping = VMEMMAP_MARK;
	}
}

/* The last page first: the first section's memmap describes all of them. */
static noinline unsigned long count_vmemmap_pages(const struct added_range *range)
{
	unsigned long first = PHYS_PFN(range->start), pfn = first + nr_memmap_pages(range);
	unsigned long nr_pages = 0;

	while (pfn-- > first) {
		struct page *page = pfn_to_page(pfn);

		/* A block that was online has the mark of the kernel instead. */
		if (PageVmemmapSelfHosted(page) || page->mapping == VMEMMAP_MARK)
			nr_pages++;
	}
	return nr_pages;
}

static int create_block(const struct added_range *range, u64 start, struct memory_group *group)
{
	unsigned long block = PHYS_PFN(memory_block_size_bytes());
	unsigned long memmap_end = PHYS_PFN(range->start) + nr_memmap_pages(range);
	struct vmem_altmap own = {
		.base_pfn = PHYS_PFN(start),
		.end_pfn = PHYS_PFN(start) + block - 1,
	};
	struct vmem_altmap *altmap = NULL;
	int error;

	if (PHYS_PFN(start) < memmap_end) {
		own.free = min(memmap_end - PHYS_PFN(start), block);
		altmap = kmemdup(&own, sizeof(own), GFP_KERNEL);
		if (!altmap)
			return -ENOMEM;
	}
	error = create_memory_block_devices(start, memory_block_size_bytes(), altmap, group);
	if (error)
		kfree(altmap);
	return error;
}

static void remove_blocks(u64 start, u64 end)
{
	unsigned long size = memory_block_size_bytes();

	while (end > start) {
		struct memory_block *block;
		struct vmem_altmap *altmap;

		end -= size;
		block = find_memory_block(pfn_to_section_nr(PHYS_PFN(end)));
		if (WARN_ON_ONCE(!block))
			continue;
		altmap = block->altmap;
		block->altmap = NULL;
		put_device(&block->dev);
		remove_memory_block_devices(end, size);
		kfree(altmap);
	}
}

static void forget_range(struct added_range *range)
{
	WARN(range->altmap->alloc, "%lu memmap pages are left\n", range->altmap->alloc);
	kfree(range->altmap);
	kfree(range);
}

static int add_with_memmap(int nid, struct memory_group *group, u64 start, u64 size)
{
	struct vmem_altmap whole = {
		.base_pfn = PHYS_PFN(start),
		.end_pfn = PHYS_PFN(start + size - 1),
		.free = PHYS_PFN(size),
	};
	struct mhp_params params = { .pgprot = pgprot_mhp(PAGE_KERNEL) };
	struct added_range *range = kzalloc(sizeof(*range), GFP_KERNEL);
	u64 at;
	int error = -ENOMEM;

	if (!range)
		return -ENOMEM;
	range->start = start;
	range->size = size;
	range->counted = memmap_counted;
	range->altmap = params.altmap = kmemdup(&whole, sizeof(whole), GFP_KERNEL);
	if (range->altmap)
		error = arch_add_memory(nid, start, size, &params);
	if (error) {
		kfree(range->altmap);
		kfree(range);
		return error;
	}
	mark_vmemmap_pages(range);
	for (at = start; at < start + size; at += memory_block_size_bytes()) {
		error = create_block(range, at, group);
		if (error) {
			remove_blocks(start, at);
			arch_remove_memory(start, size, range->altmap, NULL);
			forget_range(range);
			return error;
		}
	}
	list_add_tail(&range->list, &added_ranges);
	return 0;
}

/* Returns 1 if the range was added with its memmap, 0 if not, -EINVAL for a part or for more. */
static int remove_with_memmap(u64 start, u64 size)
{
	struct added_range *range;

	list_for_each_entry(range, &added_ranges, list) {
		if (start >= range->start + range->size || range->start >= start + size)
			continue;
		if (start != range->start || size != range->size)
			return -EINVAL;
		WARN_ON(count_vmemmap_pages(range) != nr_memmap_pages(range));
		remove_blocks(start, start + size);
		/*
		 * All at once, since the mapping may have leaves that are larger than a block. On
		 * x86 nothing of an altmap is given back, so no struct page is looked at here.
		 */
		arch_remove_memory(start, size, range->altmap, NULL);
		list_del(&range->list);
		forget_range(range);
		return 1;
	}
	return 0;
}

static const struct added_range *range_with_memmap(unsigned long pfn)
{
	const struct added_range *range;

	list_for_each_entry(range, &added_ranges, list) {
		unsigned long first = PHYS_PFN(range->start);

		if (first <= pfn && pfn < first + nr_memmap_pages(range))
			return range;
	}
	return NULL;
}

/* Called when pages from this one on become present, or stop being so. */
static bool is_hidden_memmap(struct page *page)
{
	const struct added_range *range = range_with_memmap(page_to_pfn(page));

	return range && range->counted == MEMMAP_HIDDEN;
}

/*
 * Called with the other pages of a block, its last ones, when they have gone online (1) or offline
 * (-1), and before the watermarks are set by what is in MemTotal.
 */
static void count_memmap(unsigned long pfn, unsigned long nr_pages, int sign)
{
	unsigned long first = pfn + nr_pages - PHYS_PFN(memory_block_size_bytes());
	const struct added_range *range = pfn > first ? range_with_memmap(first) : NULL;

	if (range && range->counted == MEMMAP_IN_TOTAL)
		adjust_managed_page_count(pfn_to_page(first), sign * (long)(pfn - first));
}
