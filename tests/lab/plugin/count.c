// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A plugin for QEMU's TCG: counts what a machine under Xen executes between two marks, by part of the machine:
// instructions, VM entries, hypercalls by number and command; and, with profile=FILE, where.
//
//   -plugin count.so,out=FILE[,profile=FILE]
//
// A mark is `nopl 0x584bHHLL(%rax)`, which does nothing, needs no privilege and causes no VM exit; HHLL is 1 where the
// part to be measured begins and 2 where it ends. At each end one line of JSON goes to `out`, and to `profile` a line
// `end`, after one line "PART ADDRESS INSTRUCTIONS ENTRIES" for each block of code that was executed: PART is x (Xen),
// 0 (Dom0, PV) or g (a PVH guest).
//
// Exact with one CPU (-smp 1, thread=single), a PV Dom0, and Xen 4.20's layout of its address space.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu-plugin-abi.h"

EXPORT int qemu_plugin_version = 4;

enum { MARK_BEGIN = 1, MARK_END = 2 };

// Whose code an address is. A PVH guest's kernel has the addresses of Dom0's: only VMRUN and the exit tell them apart.
enum { XEN, KERNEL, USER, CLASSES };
enum { DOM0, GUEST, DOMAINS };

static int class_of(uint64_t address) {
    if (address >= 0xffff82d000000000 && address < 0xffff82e000000000) return XEN;
    return address >= 0xffffffff80000000 ? KERNEL : USER;
}

// Numbers of xen.h whose first argument is a command that is worth telling apart.
enum { GRANT_TABLE_OP = 20, VCPU_OP = 24, MMUEXT_OP = 26, SCHED_OP = 29, EVENT_CHANNEL_OP = 32, PHYSDEV_OP = 33 };
enum { HYPERCALLS = 64, COMMANDS = 64 };

struct counts {
    uint64_t instructions[DOMAINS][CLASSES];
    uint64_t vm_entries;
    uint64_t hypercalls[DOMAINS][HYPERCALLS][COMMANDS];
};

static struct counts total, begin;
static int domain = DOM0;
static int measuring;

// Instructions are counted inline, by class; `domain` changes seldom, and then what has been counted is its.
static board_u64 executed[CLASSES], profiling;
static uint64_t accounted[CLASSES];

static FILE *out, *profile;

static void account(void) {
    for (int class = 0; class < CLASSES; class++) {
        uint64_t now = qemu_plugin_u64_sum(executed[class]);
        total.instructions[class == XEN ? DOM0 : domain][class] += now - accounted[class];
        accounted[class] = now;
    }
}

static void on_vm_entry(unsigned cpu, void *data) {
    account();
    total.vm_entries++;
    domain = GUEST;
}

// Xen executes STGI after each exit, as one of its first instructions.
static void on_vm_exit(unsigned cpu, void *data) {
    account();
    domain = DOM0;
}

static uint64_t read_register(const char *name) {
    static byte_array *bytes;
    static struct register_descriptor *registers;
    static unsigned count;
    if (!bytes) {
        array *list = qemu_plugin_get_registers();
        registers = (struct register_descriptor *)list->data;
        count = list->len;
        bytes = g_byte_array_new();
    }
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(registers[i].name, name)) continue;
        g_byte_array_set_size(bytes, 0);
        uint64_t value = 0;
        if (qemu_plugin_read_register(registers[i].handle, bytes) >= 8) memcpy(&value, bytes->data, 8);
        return value;
    }
    fprintf(stderr, "count: QEMU does not tell the register %s\n", name);
    exit(1);
}

static void on_hypercall(unsigned cpu, void *data) {
    if (!measuring) return;
    uint64_t number = read_register("rax"), command = 0;
    if (number >= HYPERCALLS) return;
    switch (number) {
    case GRANT_TABLE_OP: case VCPU_OP: case SCHED_OP: case EVENT_CHANNEL_OP: case PHYSDEV_OP:
        command = read_register("rdi") % COMMANDS;
    }
    total.hypercalls[domain][number][command]++;
}

// --- profile --------------------------------------------------------------------------------------------------------

struct block {
    struct block *next;
    uint64_t address;
    uint64_t length;
    uint64_t entries[DOMAINS];
    uint64_t instructions[DOMAINS];
};

enum { BUCKETS = 1 << 16 };
static struct block *blocks[BUCKETS];

// A block that is translated anew, with another length or in another address space, is another one with the address.
static struct block *block_of(uint64_t address, uint64_t length) {
    struct block **bucket = &blocks[(address * 0x9e3779b97f4a7c15) >> 48];
    for (struct block *block = *bucket; block; block = block->next)
        if (block->address == address && block->length == length) return block;
    struct block *block = calloc(1, sizeof *block);
    if (!block) abort();
    *block = (struct block){.next = *bucket, .address = address, .length = length};
    return *bucket = block;
}

static void on_block(unsigned cpu, void *data) {
    struct block *block = data;
    block->entries[domain]++;
    block->instructions[domain] += block->length;
}

static void print_profile(void) {
    for (int i = 0; i < BUCKETS; i++) {
        for (struct block *block = blocks[i]; block; block = block->next) {
            for (int d = 0; d < DOMAINS; d++) {
                if (!block->entries[d]) continue;
                char part = class_of(block->address) == XEN ? 'x' : d == DOM0 ? '0' : 'g';
                fprintf(profile, "%c %" PRIx64 " %" PRIu64 " %" PRIu64 "\n", part, block->address,
                        block->instructions[d], block->entries[d]);
                block->entries[d] = block->instructions[d] = 0;
            }
        }
    }
    fputs("end\n", profile);
    fflush(profile);
}

// --- marks ----------------------------------------------------------------------------------------------------------

static void print_hypercalls(const char *name, int d) {
    fprintf(out, ", \"%s\": {", name);
    const char *comma = "";
    for (int number = 0; number < HYPERCALLS; number++) {
        for (int command = 0; command < COMMANDS; command++) {
            uint64_t count = total.hypercalls[d][number][command] - begin.hypercalls[d][number][command];
            if (!count) continue;
            fprintf(out, "%s\"%d.%d\": %" PRIu64, comma, number, command, count);
            comma = ", ";
        }
    }
    fputs("}", out);
}

static void print_counts(void) {
#define SINCE(field) (total.field - begin.field)
    fprintf(out,
            "{\"xen\": %" PRIu64 ", \"dom0_kernel\": %" PRIu64 ", \"dom0_user\": %" PRIu64 ", \"guest_kernel\": %" PRIu64
            ", \"guest_user\": %" PRIu64 ", \"vm_entries\": %" PRIu64,
            SINCE(instructions[DOM0][XEN]), SINCE(instructions[DOM0][KERNEL]), SINCE(instructions[DOM0][USER]),
            SINCE(instructions[GUEST][KERNEL]), SINCE(instructions[GUEST][USER]), SINCE(vm_entries));
#undef SINCE
    print_hypercalls("dom0_hypercalls", DOM0);
    print_hypercalls("guest_hypercalls", GUEST);
    fputs("}\n", out);
    fflush(out);
}

static void on_mark(unsigned cpu, void *data) {
    account();
    if ((uintptr_t)data == MARK_BEGIN) {
        begin = total;
        measuring = 1;
        if (profile) qemu_plugin_u64_set(profiling, 0, 1);
    } else if ((uintptr_t)data == MARK_END && measuring) {
        measuring = 0;
        qemu_plugin_u64_set(profiling, 0, 0);
        print_counts();
        if (profile) print_profile();
    }
}

// --- translation ----------------------------------------------------------------------------------------------------

static void on_translation(uint64_t plugin, struct tb *tb) {
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    size_t length = qemu_plugin_tb_n_insns(tb);
    int class = class_of(address);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, ADD_U64, executed[class], length);
    if (profile)
        qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, on_block, NO_REGISTERS, EQUAL, profiling, 1,
                                                  block_of(address, length));
    for (size_t i = 0; i < length; i++) {
        struct insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint8_t code[7];
        size_t size = qemu_plugin_insn_size(insn);
        if (size > sizeof code || qemu_plugin_insn_data(insn, code, size) != size) continue;
        if (size == 7 && !memcmp(code, "\x0f\x1f\x80", 3) && !memcmp(code + 5, "\x4b\x58", 2))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, NO_REGISTERS,
                                                   (void *)(uintptr_t)(code[3] | code[4] << 8));
        else if (class == XEN && size == 3 && !memcmp(code, "\x0f\x01\xd8", 3))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_vm_entry, NO_REGISTERS, NULL);
        else if (class == XEN && size == 3 && !memcmp(code, "\x0f\x01\xdc", 3))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_vm_exit, NO_REGISTERS, NULL);
        // PV: SYSCALL in the kernel. PVH: VMMCALL. Both with the number in rax and the first argument in rdi.
        else if (class == KERNEL && ((size == 2 && !memcmp(code, "\x0f\x05", 2)) ||
                                     (size == 3 && !memcmp(code, "\x0f\x01\xd9", 3))))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_hypercall, READS_REGISTERS, NULL);
    }
}

static void on_exit_of_qemu(uint64_t plugin, void *data) {
    fclose(out);
    if (profile) fclose(profile);
}

EXPORT int qemu_plugin_install(uint64_t plugin, const void *info, int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        FILE **file = !strncmp(argv[i], "out=", 4) ? &out : !strncmp(argv[i], "profile=", 8) ? &profile : NULL;
        if (!file) {
            fprintf(stderr, "count: unknown option %s\n", argv[i]);
            return 1;
        }
        *file = fopen(strchr(argv[i], '=') + 1, "w");
        if (!*file) {
            perror(argv[i]);
            return 1;
        }
    }
    if (!out) {
        fprintf(stderr, "count: out=FILE is missing\n");
        return 1;
    }
    struct scoreboard *board = qemu_plugin_scoreboard_new((CLASSES + 1) * sizeof(uint64_t));
    for (int class = 0; class < CLASSES; class++) executed[class] = (board_u64){board, class * sizeof(uint64_t)};
    profiling = (board_u64){board, CLASSES * sizeof(uint64_t)};
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, on_translation);
    qemu_plugin_register_atexit_cb(plugin, on_exit_of_qemu, NULL);
    return 0;
}
