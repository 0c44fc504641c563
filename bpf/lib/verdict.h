/* SPDX-License-Identifier: GPL-2.0-only */
/* From an outcome to what the system call does. */
#ifndef KUBESOCK_VERDICT_H
#define KUBESOCK_VERDICT_H

#define PROCEED 1
#define REFUSE 0

#define ERR_AGAIN 11
#define ERR_PROBED 51 /* EL2HLT: nothing else answers that */
#define ERR_CONNREFUSED 111
#define ERR_HOSTUNREACH 113

static __always_inline bool is_translated(enum outcome outcome)
{
	return outcome == OUTCOME_TRANSLATED || outcome == OUTCOME_TRANSLATED_BY_AFFINITY ||
	       outcome == OUTCOME_TRANSLATED_SAME_SOCKET;
}

static __always_inline int errno_of(enum outcome outcome)
{
	switch (outcome) {
	case OUTCOME_REFUSED_NO_ENDPOINTS:
	case OUTCOME_REFUSED_UNDEFINED_PORT:
	case OUTCOME_REFUSED_UNALLOCATED_ADDRESS:
		return ERR_CONNREFUSED;
	case OUTCOME_REFUSED_NO_LOCAL_ENDPOINTS:
	case OUTCOME_REFUSED_SOURCE_RANGE:
	case OUTCOME_REFUSED_UNKNOWN_SOURCE:
		return ERR_HOSTUNREACH;
	case OUTCOME_REFUSED_UNSTABLE:
		return ERR_AGAIN;
	case OUTCOME_PROBED:
		return ERR_PROBED;
	default:
		return 0;
	}
}

static __always_inline int verdict(enum outcome outcome)
{
	int error = errno_of(outcome);

	if (!error)
		return PROCEED;
	if (HAVE_SET_RETVAL)
		bpf_set_retval(-error);
	return REFUSE;
}

#endif
