/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef KUBESOCK_CLOCK_H
#define KUBESOCK_CLOCK_H

#define SECOND 1000000000ULL

/* Nanoseconds since boot, without suspend. A tick of precision is enough everywhere here. */
static __always_inline u64 now(void)
{
	return HAVE_COARSE_CLOCK ? bpf_ktime_get_coarse_ns() : bpf_ktime_get_ns();
}

#endif
