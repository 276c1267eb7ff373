/* A loader of Level Zero in as much as it answers; what it answers stands in the environment. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  uint32_t stype;
  void *next;
  uint32_t type, vendor_id, device_id, flags, subdevice_id, core_clock_rate;
  uint64_t max_alloc_size;
  uint32_t counts[7];
  uint64_t timer_resolution;
  uint32_t timestamp_bits[2];
  uint8_t uuid[16];
  char name[256];
} device_properties;

typedef struct {
  uint32_t stype;
  void *next;
  uint32_t flags, max_clock_rate, max_bus_width;
  uint64_t total_size;
  char name[256];
} memory_properties;

_Static_assert(sizeof(device_properties) == 368, "as in ze_api.h");
_Static_assert(offsetof(device_properties, name) == 112, "as in ze_api.h");
_Static_assert(sizeof(memory_properties) == 296, "as in ze_api.h");

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? (int)strtoul(text, NULL, 0) : otherwise;
}

int zeInit(uint32_t flags) {
  if (getenv("STUB_CRASHES")) abort();
  return flags == 1 ? number("STUB_STATUS", 0) : 0x78000004;
}

int zeDriverGet(uint32_t *count, void **drivers) {
  if (drivers) drivers[0] = (void *)1;
  return *count = 1, 0;
}

/* An accelerator that is no GPU comes first, as some drivers have it. */
int zeDeviceGet(void *driver, uint32_t *count, void **devices) {
  int num_devices = number("STUB_COUNT", 2) + 1;
  for (int i = 0; devices && i < num_devices; i++) devices[i] = (void *)(uintptr_t)(100 + i);
  (void)driver;
  return *count = num_devices, 0;
}

int zeDeviceGetProperties(void *device, device_properties *facts) {
  uintptr_t index = (uintptr_t)device - 100;
  if (facts->stype != 3) return 0x78000004;
  facts->type = index ? 1 : 5;
  facts->vendor_id = 0x8086;
  facts->device_id = 0xE20A + (uint32_t)index;
  facts->flags = index == 2;
  snprintf(facts->name, sizeof facts->name, "Stub Arc %d", (int)index);
  return 0;
}

int zeDeviceGetMemoryProperties(void *device, uint32_t *count, memory_properties *memories) {
  uintptr_t index = (uintptr_t)device - 100;
  if (memories) {
    if (memories[0].stype != 7 || memories[1].stype != 7) return 0x78000004;
    memories[0].total_size = (uint64_t)index << 33;
    memories[1].total_size = (uint64_t)index << 33;
  }
  return *count = 2, 0;
}
