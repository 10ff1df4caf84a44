/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel's build writes for each module, by hand: modules of the lab are compiled against
 * the kernel's headers without its build system, whose programs run on few machines.
 *
 * Sources: scripts/mod/modpost.c, include/linux/export-internal.h, kernel/module (6.1, 6.12, 7.3).
 */
#define INCLUDE_VERMAGIC
#include <linux/module.h>
#include <linux/vermagic.h>

MODULE_INFO(vermagic, VERMAGIC_STRING);
MODULE_INFO(name, KBUILD_MODNAME);
MODULE_INFO(retpoline, "Y");

__visible struct module __this_module __section(".gnu.linkonce.this_module") = {
	.name = KBUILD_MODNAME,
	.init = init_module,
	.arch = MODULE_ARCH_INIT,
};

/* The name of an exported function; with a prefix where the kernel itself has one of that name. */
#ifndef ALTMAP_PREFIX
#define ALTMAP_PREFIX
#endif
#define ALTMAP_PASTE(prefix, name) prefix##name
#define ALTMAP_JOIN(prefix, name) ALTMAP_PASTE(prefix, name)
#define ALTMAP_NAME(name) ALTMAP_JOIN(ALTMAP_PREFIX, name)

/*
 * An entry of the module's symbol table: relative references to function, name and namespace. Its
 * flags, a table of their own since 7.x, are 0. There are no checksums of types: a kernel that
 * wants them takes the module all the same, and says so once.
 */
#define ALTMAP_EXPORT_AS(name)							\
	".section __ksymtab_strings, \"aMS\", @progbits, 1\n"			\
	"__kstrtab_" name ": .asciz \"" name "\"\n"				\
	"__kstrtabns_" name ": .asciz \"\"\n"					\
	".previous\n"								\
	".section __ksymtab, \"a\"\n"						\
	".balign 4\n"								\
	"__ksymtab_" name ": .long " name " - .\n"				\
	".long __kstrtab_" name " - .\n"					\
	".long __kstrtabns_" name " - .\n"					\
	".previous\n"								\
	".section __kflagstab, \"a\"\n"						\
	".byte 0\n"								\
	".previous\n"
#define ALTMAP_EXPORT(name) ALTMAP_EXPORT_AS(__stringify(ALTMAP_PREFIX) #name)
