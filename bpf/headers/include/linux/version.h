/* SPDX-License-Identifier: GPL-2.0-only */
/* BCC chooses between old and new helper names by it; every kernel we support has the new ones. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
