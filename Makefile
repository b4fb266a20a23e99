# SPDX-License-Identifier: GPL-2.0
#
# Kernel modules of Causeway.
#
#   make [KDIR=tree]              build them into target/modules
#   make modules_install          install them for that kernel
#   make CLIPPY=1                 the same with lints
#   make clean
#
# KDIR is a kernel tree prepared for modules in Rust; without it, the headers of the running kernel. What a Debian 13
# machine needs for it is told in docs/src/debian-13.md.

KDIR ?= /lib/modules/$(shell uname -r)/build
MO ?= $(CURDIR)/target/modules

# Kernel trees name the compiler they were configured with; a module must be built with the same one.
CC := $(shell sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\).*/\1/p' $(KDIR)/.config 2>/dev/null)

.PHONY: modules modules_install clean check
modules modules_install: check
	@mkdir -p $(MO)
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(MO) CC=$(CC) $@

clean:
	rm -rf $(MO)

# Says in a sentence what is missing, before the kernel's own build says it in fifty.
check:
	@test -e $(KDIR)/.config || { echo "There is no kernel tree at $(KDIR): install the kernel's headers (Debian: linux-headers-$$(uname -r)), or give KDIR=."; false; }
	@grep -q '^CONFIG_RUST=y' $(KDIR)/.config || { echo "The kernel of $(KDIR) was built without Rust (CONFIG_RUST): on Debian 13 take the kernel of trixie-backports."; false; }
	@test -e $(KDIR)/rust/libkernel.rmeta || { echo "$(KDIR) lacks the Rust metadata (rust/libkernel.rmeta): docs/src/debian-13.md tells how to make it."; false; }
	@command -v $(CC) >/dev/null || { echo "The kernel was built with $(CC), which is not installed."; false; }
