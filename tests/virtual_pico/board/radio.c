// The memory that a Pico W's radio takes: with it 190 KB are left for both heaps
char radio[23 * 1024];
