/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The part of QEMU's plugin interface (version 4) that count.c uses. No Debian package has its header, and the
 * interface is stable per version: QEMU refuses a plugin whose `qemu_plugin_version` it does not know.
 * Documented at https://www.qemu.org/docs/master/devel/tcg-plugins.html.
 */
#ifndef QEMU_PLUGIN_ABI_H
#define QEMU_PLUGIN_ABI_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum callback_registers { NO_REGISTERS, READS_REGISTERS, WRITES_REGISTERS };
enum inline_operation { ADD_U64, STORE_U64 };
enum condition { NEVER, ALWAYS, EQUAL, NOT_EQUAL };

struct scoreboard;
struct tb;
struct insn;

/* A u64 at an offset in each CPU's entry of a scoreboard. */
typedef struct {
    struct scoreboard *board;
    size_t offset;
} board_u64;

/* GLib's, whose objects carry register values and the list of registers. */
typedef struct {
    uint8_t *data;
    unsigned len;
} byte_array;
typedef struct {
    char *data;
    unsigned len;
} array;
struct register_descriptor {
    void *handle;
    const char *name;
    const char *feature;
};
byte_array *g_byte_array_new(void);
byte_array *g_byte_array_set_size(byte_array *bytes, unsigned length);

typedef void (*tb_callback)(uint64_t plugin, struct tb *tb);
typedef void (*exec_callback)(unsigned cpu, void *data);
typedef void (*exit_callback)(uint64_t plugin, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, tb_callback);
void qemu_plugin_register_atexit_cb(uint64_t plugin, exit_callback, void *data);

size_t qemu_plugin_tb_n_insns(const struct tb *);
uint64_t qemu_plugin_tb_vaddr(const struct tb *);
struct insn *qemu_plugin_tb_get_insn(const struct tb *, size_t index);
size_t qemu_plugin_insn_data(const struct insn *, void *to, size_t length);
size_t qemu_plugin_insn_size(const struct insn *);

void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct tb *, enum inline_operation, board_u64, uint64_t value);
void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct tb *, exec_callback, enum callback_registers, enum condition,
                                               board_u64, uint64_t value, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct insn *, exec_callback, enum callback_registers, void *data);

struct scoreboard *qemu_plugin_scoreboard_new(size_t entry);
uint64_t qemu_plugin_u64_sum(board_u64);
void qemu_plugin_u64_set(board_u64, unsigned cpu, uint64_t value);

array *qemu_plugin_get_registers(void);
int qemu_plugin_read_register(void *handle, byte_array *into);

#endif
