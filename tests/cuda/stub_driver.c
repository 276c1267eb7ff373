/* A driver of NVIDIA's in as much as it answers; what it answers stands in the environment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) {
  (void)flags;
  if (getenv("STUB_CRASHES")) abort();
  return number("STUB_STATUS", 0);
}
int cuDriverGetVersion(int *version) { return *version = number("STUB_VERSION", 13000), 0; }
int cuDeviceGetCount(int *count) { return *count = number("STUB_COUNT", 2), 0; }
int cuDeviceGet(int *device, int index) { return *device = index, 0; }
int cuDeviceGetName(char *name, int size, int device) {
  return snprintf(name, size, "Stub GPU %c", 'A' + device), 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  return *bytes = (size_t)(device + 1) << 34, 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int capability = number(device ? "STUB_CAPABILITY_1" : "STUB_CAPABILITY_0", 90);
  *value = attribute == 75 ? capability / 10 : capability % 10;
  return attribute == 75 || attribute == 76 ? 0 : 1;
}
