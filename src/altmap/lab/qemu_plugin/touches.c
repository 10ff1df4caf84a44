/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A plugin for QEMU's TCG: which page frames the guest's kernel reads and writes, by which
 * instruction.
 *
 * Arguments: out=FD for the lines, control=FD of a file that has struct control and that the lab
 * changes. The first access of each kind, by each instruction, to each frame is a line:
 *
 *	w ADDRESS VIRTUAL-ADDRESS INSTRUCTION ram|io
 *
 * in hexadecimal; ADDRESS is as QEMU tells it. In another epoch, all counts as the first again, and
 * the line "epoch NUMBER" comes before. In epoch 0 nothing counts. The lab changes the addresses in
 * epoch 0 only, so those that are read after an epoch are of that or a later one.
 *
 * QEMU's header is in few packages, so what is used of it is declared here (versions 1 to 4 of the
 * interface are alike in this).
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
typedef uint32_t mem_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;

enum { NO_REGISTERS = 0, READS_AND_WRITES = 3 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
	void (*callback)(plugin_id id, struct qemu_plugin_tb *tb));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t nr);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
	void (*callback)(unsigned int cpu, mem_info info, uint64_t address, void *data),
	int registers, int accesses, void *data);
extern bool qemu_plugin_mem_is_store(mem_info info);
extern struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(mem_info info, uint64_t address);
extern bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *address);
extern uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *address);

EXPORT int qemu_plugin_version = INTERFACE_VERSION;

#define PAGE_SHIFT 12
#define KERNEL_HALF (1ULL << 63)
#define NR_ENTRIES (1U << 20)
/* Beyond that, searching takes too long. */
#define MOST_ENTRIES (NR_ENTRIES / 4 * 3)

struct entry {
	uint64_t instruction;
	uint64_t frame_and_kind;
	uint32_t epoch;
};

/* The first addresses that count: of memory, and of what is not memory. */
struct control {
	uint32_t epoch, unused;
	uint64_t first_ram, first_io;
};

static struct entry entries[NR_ENTRIES];
static uint32_t nr_entries, epoch;
static const volatile struct control *control;
static int out = -1;
static char lock;

static void say(const char *line, int size)
{
	if (write(out, line, size) != size)
		abort(); /* a guest whose accesses are lost must not seem to have none */
}

static void begin(uint32_t number)
{
	char line[32];

	epoch = number;
	nr_entries = 0;
	say(line, snprintf(line, sizeof(line), "epoch %u\n", number));
}

static bool is_first(uint64_t instruction, uint64_t frame_and_kind)
{
	uint64_t hash = (instruction ^ frame_and_kind * 0x9e3779b97f4a7c15ULL) * 0xff51afd7ed558ccdULL;
	uint32_t at = hash >> 44;

	for (;; at = (at + 1) % NR_ENTRIES) {
		struct entry *entry = &entries[at];

		if (entry->epoch != epoch) {
			if (nr_entries == MOST_ENTRIES)
				abort();
			nr_entries++;
			*entry = (struct entry){ instruction, frame_and_kind, epoch };
			return true;
		}
		if (entry->instruction == instruction && entry->frame_and_kind == frame_and_kind)
			return false;
	}
}

static void access_memory(unsigned int cpu, mem_info info, uint64_t address, void *data)
{
	struct qemu_plugin_hwaddr *place;
	uint64_t physical, kind;
	uint32_t number = control->epoch;
	char line[96];
	bool is_io;

	(void)cpu;
	if (address < KERNEL_HALF || !number)
		return;
	place = qemu_plugin_get_hwaddr(info, address);
	if (!place)
		return;
	is_io = qemu_plugin_hwaddr_is_io(place);
	physical = qemu_plugin_hwaddr_phys_addr(place);
	if (physical < (is_io ? control->first_io : control->first_ram))
		return;
	kind = (physical >> PAGE_SHIFT) << 2 | (qemu_plugin_mem_is_store(info) ? 2 : 0) | is_io;
	while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE))
		;
	/* The lab may have ended the epoch meanwhile. Unused entries have epoch 0: none may begin it. */
	if (number == control->epoch && number != epoch)
		begin(number);
	if (number == epoch && is_first((uintptr_t)data, kind))
		say(line, snprintf(line, sizeof(line), "%c %llx %llx %llx %s\n",
				   qemu_plugin_mem_is_store(info) ? 'w' : 'r',
				   (unsigned long long)physical, (unsigned long long)address,
				   (unsigned long long)(uintptr_t)data, is_io ? "io" : "ram"));
	__atomic_clear(&lock, __ATOMIC_RELEASE);
}

static void translate(plugin_id id, struct qemu_plugin_tb *tb)
{
	size_t nr, all = qemu_plugin_tb_n_insns(tb);

	(void)id;
	for (nr = 0; nr < all; nr++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, nr);
		uint64_t address = qemu_plugin_insn_vaddr(insn);

		if (address >= KERNEL_HALF)
			qemu_plugin_register_vcpu_mem_cb(insn, access_memory, NO_REGISTERS,
							 READS_AND_WRITES, (void *)(uintptr_t)address);
	}
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	int nr;

	(void)info;
	for (nr = 0; nr < argc; nr++) {
		char *value = strchr(argv[nr], '=');

		if (!value)
			return -1;
		*value++ = 0;
		if (!strcmp(argv[nr], "out"))
			out = atoi(value);
		else if (!strcmp(argv[nr], "control"))
			control = mmap(NULL, sizeof(*control), PROT_READ, MAP_SHARED, atoi(value), 0);
		else
			return -1;
	}
	if (out < 0 || !control || control == MAP_FAILED)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	return 0;
}
