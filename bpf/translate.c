/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Puts a pod's address in the place of a Service's address in connect() and
 * sendmsg(), and the Service's address back in getpeername() and recvmsg().
 *
 * The one translation unit. The loader expands the includes in quotes as text
 * (BCC rewrites map methods only in the main file) and defines:
 *	MAX_BACKENDS	entries of `backends`
 *	HAVE_SET_RETVAL	1 where the kernel has bpf_set_retval (5.18)
 *	HAVE_COARSE_CLOCK 1 where it has bpf_ktime_get_coarse_ns (5.11)
 *	CROSSING	1 for programs that also know the records of another layout (lib/earlier.h)
 */
#include <uapi/linux/bpf.h>

#include "contract.h"
#include "maps.h"
#include "lib/address.h"
#include "lib/clock.h"
#include "lib/counters.h"
#include "lib/lookup.h"
#include "lib/choice.h"
#include "lib/clients.h"
#include "lib/affinity.h"
#include "lib/origin.h"
#include "lib/events.h"
#include "lib/verdict.h"
#include "lib/translate.h"
#include "hooks/connect.h"
#include "hooks/sendmsg.h"
#include "hooks/recvmsg.h"
#include "hooks/getpeername.h"
