/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies sockets' records from maps of another layout into ours: two iterators, each over one earlier map. Run
 * when no hook writes those any more. What a hook has made of one meanwhile stays.
 *
 * Writes one byte for each record: 1 copied, 0 refused by the kernel: the socket closes, or net.core.optmem_max.
 * Defined as for CROSSING programs of translate.c. Needs bpf_sk_storage_get in iterators (Linux 5.11).
 */
#include <uapi/linux/bpf.h>

#include "contract.h"
#include "maps.h"
#include "lib/address.h"
#include "lib/earlier.h"
#include "lib/storage_iterator.h"

static __always_inline void tell(struct bpf_iter__bpf_sk_storage_map *ctx, const void *record)
{
	u8 copied = record ? 1 : 0;

	bpf_seq_write(ctx->meta->seq, &copied, sizeof(copied));
}

int carry_origin(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct earlier_origin *found = ctx->value;
	struct sock *sk = ctx->sk;
	struct origin record, *ours;

	if (!sk || !found || !found->backend_port)
		return 0;
	origin_of_earlier_origin(&record, found);
	ours = origin.sk_storage_get(sk, &record, BPF_SK_STORAGE_GET_F_CREATE);
	if (ours) {
		if (!ours->backend_port)
			*ours = record;
		found->backend_port = 0;
	}
	tell(ctx, ours);
	return 0;
}

int carry_origin_udp(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct earlier_datagram_origins *found = ctx->value;
	struct datagram_origins record = {}, *ours;
	struct sock *sk = ctx->sk;

	if (!sk || !found || is_void_datagrams(found))
		return 0;
	datagram_origins_of_earlier_datagram_origins(&record, found);
	ours = origin_udp.sk_storage_get(sk, &record, BPF_SK_STORAGE_GET_F_CREATE);
	if (ours) {
		*ours = record;
		void_datagrams(found);
	}
	tell(ctx, ours);
	return 0;
}
