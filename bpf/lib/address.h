/* SPDX-License-Identifier: GPL-2.0-only */
/* 16-byte addresses, v4-mapped. Hooks convert at entry and exit; between them there is one family. */
#ifndef KUBESOCK_ADDRESS_H
#define KUBESOCK_ADDRESS_H

#define HOST_16(x) ((__u16)__builtin_bswap16(x))
#define HOST_32(x) __builtin_bswap32(x)
#define MAPPED_PREFIX __builtin_bswap32(0x0000ffff)
#define LOOPBACK_IPV4 __builtin_bswap32(0x7f000001)

static __always_inline bool same_address(const struct address *a, const struct address *b)
{
	return a->word[3] == b->word[3] && a->word[2] == b->word[2] && a->word[1] == b->word[1] &&
	       a->word[0] == b->word[0];
}

static __always_inline bool is_ipv4(const struct address *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == MAPPED_PREFIX;
}

static __always_inline bool is_loopback(const struct address *a)
{
	if (is_ipv4(a))
		return (HOST_32(a->word[3]) >> 24) == 127;
	return !a->word[0] && !a->word[1] && !a->word[2] && HOST_32(a->word[3]) == 1;
}

static __always_inline void ipv4_of(struct bpf_sock_addr *ctx, struct address *to)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = MAPPED_PREFIX;
	to->word[3] = ctx->user_ip4;
}

static __always_inline void ipv6_of(struct bpf_sock_addr *ctx, struct address *to)
{
	to->word[0] = ctx->user_ip6[0];
	to->word[1] = ctx->user_ip6[1];
	to->word[2] = ctx->user_ip6[2];
	to->word[3] = ctx->user_ip6[3];
}

static __always_inline void put_ipv4(struct bpf_sock_addr *ctx, const struct address *from,
				     __be16 port)
{
	ctx->user_ip4 = from->word[3];
	ctx->user_port = port;
}

static __always_inline void put_ipv6(struct bpf_sock_addr *ctx, const struct address *from,
				     __be16 port)
{
	ctx->user_ip6[0] = from->word[0];
	ctx->user_ip6[1] = from->word[1];
	ctx->user_ip6[2] = from->word[2];
	ctx->user_ip6[3] = from->word[3];
	ctx->user_port = port;
}

#endif
