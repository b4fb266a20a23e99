// SPDX-License-Identifier: GPL-2.0

#include "bindings.h"

bool causeway_xen_domain(void)
{
	return xen_domain();
}
