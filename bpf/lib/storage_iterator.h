/* SPDX-License-Identifier: GPL-2.0-only */
/* What an iterator over socket storage gets. Pointers are in unions, or BCC would read through them itself. */
#ifndef KUBESOCK_STORAGE_ITERATOR_H
#define KUBESOCK_STORAGE_ITERATOR_H

struct sock;
struct bpf_map;
struct seq_file;

struct bpf_iter_meta {
	union {
		struct seq_file *seq;
	};
	u64 session_id;
	u64 seq_num;
};

struct bpf_iter__bpf_sk_storage_map {
	union {
		struct bpf_iter_meta *meta;
	};
	union {
		struct bpf_map *map;
	};
	union {
		struct sock *sk;
	};
	union {
		void *value;
	};
};

#endif
