/* SPDX-License-Identifier: GPL-2.0-only */
/* Empty on purpose: BCC includes it by name and brings what it needs itself. */
