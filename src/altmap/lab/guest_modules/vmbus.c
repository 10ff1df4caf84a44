// SPDX-License-Identifier: GPL-2.0
/*
 * A VMBus with one channel, for a guest that does not run on Hyper-V.
 *
 * hv_balloon needs five functions of its bus. Here they are, with the host's end of the channel
 * as the character device /dev/altmap-vmbus: write() gives the driver one packet, read() returns
 * one packet of the driver and waits for it.
 *
 * The kernel interfaces are those of include/linux/hyperv.h in 6.1, 6.12 and 7.3.
 */
#include <linux/fs.h>
#include <linux/hyperv.h>
#include <linux/interrupt.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "altmap.h"

#define MOST_PACKET_BYTES 4096
/* A ring buffer of hv_balloon: 16 KiB for each direction, 24 bytes of overhead for each packet. */
#define RING_BYTES 16384
#define PACKET_OVERHEAD_BYTES 24

struct packet {
	struct list_head list;
	u32 size;
	u8 data[];
};

struct ring {
	spinlock_t lock;
	struct list_head packets;
	u32 used;
};

static struct ring to_guest, to_host;
static DECLARE_WAIT_QUEUE_HEAD(sent);

static struct hv_device *device;
static struct hv_driver *driver;
static void (*callback)(void *context);
static void *callback_context;

/* What the driver's probe returned; 1 while it runs or has not begun. */
static int probe_result = 1;
module_param(probe_result, int, 0444);

static void ring_init(struct ring *ring)
{
	spin_lock_init(&ring->lock);
	INIT_LIST_HEAD(&ring->packets);
}

static int ring_put(struct ring *ring, const void *data, u32 size, gfp_t gfp)
{
	struct packet *packet = kmalloc(sizeof(*packet) + size, gfp);
	unsigned long flags;
	int error = 0;

	if (!packet)
		return -ENOMEM;
	packet->size = size;
	memcpy(packet->data, data, size);
	spin_lock_irqsave(&ring->lock, flags);
	if (ring->used + size + PACKET_OVERHEAD_BYTES > RING_BYTES) {
		error = -EAGAIN;
	} else {
		ring->used += size + PACKET_OVERHEAD_BYTES;
		list_add_tail(&packet->list, &ring->packets);
	}
	spin_unlock_irqrestore(&ring->lock, flags);
	if (error)
		kfree(packet);
	return error;
}

static struct packet *ring_take(struct ring *ring)
{
	struct packet *packet;
	unsigned long flags;

	spin_lock_irqsave(&ring->lock, flags);
	packet = list_first_entry_or_null(&ring->packets, struct packet, list);
	if (packet) {
		list_del(&packet->list);
		ring->used -= packet->size + PACKET_OVERHEAD_BYTES;
	}
	spin_unlock_irqrestore(&ring->lock, flags);
	return packet;
}

static bool ring_is_empty(struct ring *ring)
{
	return list_empty(&ring->packets);
}

/* The driver takes one packet for each call, as from the interrupt of a real channel. */
static void deliver(unsigned long unused)
{
	while (callback && !ring_is_empty(&to_guest))
		callback(callback_context);
}

/* --- what hv_balloon calls ------------------------------------------------------------------- */

static void probe(struct work_struct *work)
{
	/* The driver waits in its probe for the host, so that registering must have returned. */
	probe_result = driver->probe(device, driver->id_table);
}

static DECLARE_WORK(probe_work, probe);

int ALTMAP_NAME(__vmbus_driver_register)(struct hv_driver *hv_driver, struct module *owner,
					 const char *mod_name)
{
	if (driver)
		return -EBUSY;
	driver = hv_driver;
	schedule_work(&probe_work);
	return 0;
}

int ALTMAP_NAME(vmbus_open)(struct vmbus_channel *channel, u32 send_size, u32 receive_size,
			    void *userdata, u32 userdata_size,
			    void (*on_channel_callback)(void *context), void *context)
{
	tasklet_init(&channel->callback_event, deliver, 0);
	callback_context = context;
	callback = on_channel_callback;
	return 0;
}

void ALTMAP_NAME(vmbus_close)(struct vmbus_channel *channel)
{
	tasklet_kill(&channel->callback_event);
	callback = NULL;
}

int ALTMAP_NAME(vmbus_sendpacket)(struct vmbus_channel *channel, void *buffer, u32 size,
				  u64 request_id, enum vmbus_packet_type type, u32 flags)
{
	int error = ring_put(&to_host, buffer, size, GFP_ATOMIC);

	if (!error)
		wake_up_interruptible(&sent);
	return error;
}

int ALTMAP_NAME(vmbus_recvpacket)(struct vmbus_channel *channel, void *buffer, u32 size,
				  u32 *actual_size, u64 *request_id)
{
	struct packet *packet = ring_take(&to_guest);
	int error = 0;

	*actual_size = 0;
	*request_id = 0;
	if (!packet)
		return 0;
	if (packet->size > size) {
		error = -ENOBUFS;
	} else {
		memcpy(buffer, packet->data, packet->size);
		*actual_size = packet->size;
	}
	kfree(packet);
	return error;
}

/* In the order of their names, since the kernel searches them by halves. */
asm(ALTMAP_EXPORT(__vmbus_driver_register)
    ALTMAP_EXPORT(vmbus_close)
    ALTMAP_EXPORT(vmbus_open)
    ALTMAP_EXPORT(vmbus_recvpacket)
    ALTMAP_EXPORT(vmbus_sendpacket));

/* --- the host's end -------------------------------------------------------------------------- */

static ssize_t host_read(struct file *file, char __user *buffer, size_t size, loff_t *offset)
{
	struct packet *packet;
	ssize_t done;

	if (wait_event_interruptible(sent, !ring_is_empty(&to_host)))
		return -ERESTARTSYS;
	packet = ring_take(&to_host);
	if (!packet)
		return 0;
	done = packet->size;
	if (size < packet->size)
		done = -EMSGSIZE;
	else if (copy_to_user(buffer, packet->data, packet->size))
		done = -EFAULT;
	kfree(packet);
	return done;
}

static ssize_t host_write(struct file *file, const char __user *buffer, size_t size,
			  loff_t *offset)
{
	void *data;
	int error;

	if (!size || size > MOST_PACKET_BYTES)
		return -EMSGSIZE;
	if (!callback)
		return -ENOTCONN;
	data = memdup_user(buffer, size);
	if (IS_ERR(data))
		return PTR_ERR(data);
	error = ring_put(&to_guest, data, size, GFP_KERNEL);
	kfree(data);
	if (error)
		return error;
	tasklet_schedule(&device->channel->callback_event);
	return size;
}

static const struct file_operations host_operations = {
	.owner = THIS_MODULE,
	.read = host_read,
	.write = host_write,
};

static struct miscdevice host_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "altmap-vmbus",
	.fops = &host_operations,
};

static int __init vmbus_init(void)
{
	ring_init(&to_guest);
	ring_init(&to_host);
	device = kzalloc(sizeof(*device), GFP_KERNEL);
	if (!device)
		return -ENOMEM;
	device->channel = kzalloc(sizeof(*device->channel), GFP_KERNEL);
	if (!device->channel)
		return -ENOMEM;
	device->channel->device_obj = device;
	device->channel->state = CHANNEL_OPENED_STATE;
	return misc_register(&host_device);
}
module_init(vmbus_init);

MODULE_DESCRIPTION("altmap: a VMBus with one channel, whose host is a character device");
MODULE_LICENSE("GPL");
