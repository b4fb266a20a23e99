# SPDX-License-Identifier: GPL-2.0
#
# Kernel modules of Causeway.
#
#   make kit                      make the kernel tree that they are built against, for a kernel of Debian; once, as root
#   make [KDIR=tree]              build them into target/modules
#   make modules_install          install them for that kernel
#   make CLIPPY=1                 the same with lints
#   make clean
#
# KDIR is a kernel tree prepared for modules in Rust: if none is given, the kit of the kernel KVER, else its headers. KVER is the
# running kernel, if not given. docs/src/debian-13.md tells it step by step.

KVER ?= $(shell uname -r)
KIT ?= /usr/src/causeway-kit-$(KVER)
KDIR ?= $(if $(wildcard $(KIT)/complete),$(KIT)/build,/lib/modules/$(KVER)/build)
MO ?= $(CURDIR)/target/modules

# Kernel trees name the compiler they were configured with; a module must be built with the same one. Of clang they tell the
# version, with which Debian names it and the other tools of LLVM; LLVM=1 takes those without a version in their names.
clang := $(shell sed -n 's/^CONFIG_CLANG_VERSION=\([0-9]*\)[0-9]\{4\}$$/\1/p' $(KDIR)/.config 2>/dev/null)
ifneq ($(clang),)
export LLVM ?= -$(clang)
CC := $(filter %/,$(LLVM))clang$(filter -%,$(LLVM))
else
CC := $(shell sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\).*/\1/p' $(KDIR)/.config 2>/dev/null)
endif

# Type information for BPF is made from the kernel's own file, which hardly any tree has. Without it the kernel's build says
# for each module that it skips it.
no_btf := $(if $(wildcard $(KDIR)/vmlinux),,CONFIG_DEBUG_INFO_BTF_MODULES=)

.PHONY: modules modules_install kit clean check
modules: check
	@mkdir -p $(MO)
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(MO) CC=$(CC) $(no_btf) $@

# The key that the kernel's own modules were signed with is the kernel's builder's alone. The kernel's build would run
# depmod only where System.map is.
modules_install: check
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(MO) CC=$(CC) INSTALL_MOD_STRIP=1 CONFIG_MODULE_SIG_ALL= DEPMOD=true $@
	PATH=$$PATH:/sbin:/usr/sbin depmod $(if $(INSTALL_MOD_PATH),-b $(INSTALL_MOD_PATH)) $$(cat $(KDIR)/include/config/kernel.release)

kit:
	linux-modules/make-kit.sh $(KVER) $(KIT)

clean:
	rm -rf $(MO)

# Says in a sentence what is missing, before the kernel's own build says it in fifty.
check:
	@test -e $(KDIR)/.config || { echo "There is no kernel tree at $(KDIR): install the kernel's headers (Debian: linux-headers-$(KVER)), or give KDIR=."; false; }
	@grep -q '^CONFIG_RUST=y' $(KDIR)/.config || { echo "The kernel of $(KDIR) was built without Rust (CONFIG_RUST): on Debian 13 take the kernel of trixie-backports."; false; }
	@test -e $(KDIR)/rust/libkernel.rmeta || { echo "$(KDIR) lacks the Rust metadata (rust/libkernel.rmeta): on Debian, \"make kit KVER=$(KVER)\" as root makes it; see docs/src/debian-13.md."; false; }
	@command -v $(CC) >/dev/null || { echo "The kernel was built with $(CC), which is not installed."; false; }
